// The page an operator looks at: mail, events, accounts and failures, from the logs.

@description('Name on the page.')
param displayName string

@description('Azure region.')
param location string

@description('Tags.')
param tags { *: string }

@description('The workspace that is asked.')
param workspaceId string

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'graphpost')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: displayName
    category: 'workbook'
    sourceId: workspaceId
    serializedData: string(loadJsonContent('workbook.json'))
  }
}

@description('Resource id.')
output id string = workbook.id
